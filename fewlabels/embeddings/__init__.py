"""The embeddings of a folder of images in a parquet file, written part by part."""
