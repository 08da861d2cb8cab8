"""The nouns: ids, tensor specs, manifests, recipes, locks and the store protocol; no tensors and no I/O."""
