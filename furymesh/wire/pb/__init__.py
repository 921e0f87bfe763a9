"""Generated from proto/furymesh.proto by `make proto`; imported by the codec alone."""
