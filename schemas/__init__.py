"""Wire records, topics and codecs: what deskrisk reads and writes. Knows nothing of how it is computed."""
