"""Delta codecs: one tensor against its base, as bytes and back, bit for bit."""
