"""FlexRay's tests."""
