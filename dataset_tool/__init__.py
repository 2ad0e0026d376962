"""Dataset preparation: catalog and downloads, image sources, pictures, procedural scenes, writing, manifest, command line."""
