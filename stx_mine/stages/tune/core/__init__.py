"""Pure decisions of `tune`: what to try, and which is the best."""
