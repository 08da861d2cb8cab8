"""Objects in other places: folders of file systems that fsspec reaches."""
