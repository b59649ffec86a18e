"""A package, so that no library's `tests` (kronfluence installs one) stands in its place."""
