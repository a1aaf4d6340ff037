"""Pure decisions of `report`: curves over stored hits, and where a plot draws what."""
