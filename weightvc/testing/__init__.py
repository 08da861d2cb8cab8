"""Laws that every plug-in keeps, as test suites: subclass them in your own tests. They need pytest and hypothesis."""
