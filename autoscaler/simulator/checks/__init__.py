"""Guards: what must hold of any policy before its figures are believed, each as a verdict with a reason."""
