"""corpuscore: score every document of a corpus with a transformer classifier, exactly once, into a warehouse table."""

__version__ = "0.1.0"
