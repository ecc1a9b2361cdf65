//! Content-addressed blobs and, later, trees of files.
