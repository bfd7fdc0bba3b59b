"""What a run leaves behind: artifacts, output collections, and fields of the source."""
