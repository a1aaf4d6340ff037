"""`index`: a FAISS index of the passages, its recall measured."""
