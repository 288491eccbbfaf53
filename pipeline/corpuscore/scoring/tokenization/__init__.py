"""What the tokenizer of a checkpoint is: that which transformers' AutoTokenizer makes of all files in the folder.

files       the JSON files that a tokenizer was saved as
agreement   whether tokenizer.json by itself is what AutoTokenizer would make; then transformers is not imported
asking      else AutoTokenizer is asked, and its answer kept for all processes of this user
source      the one place that decides between the two
cutting     long texts are cut before they are tokenized
"""
