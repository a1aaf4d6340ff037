"""Files of a run directory: layout, schemas, plans, manifests, atomic writes, the lock."""
