"""Pure decisions of `calibrate`."""
