"""Item indexes: exact and FAISS, behind one search contract."""
