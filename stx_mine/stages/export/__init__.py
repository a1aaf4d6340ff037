"""`export`: mined rows in the layout of another trainer."""
