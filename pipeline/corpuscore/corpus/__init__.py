"""The corpus: which objects it has, how they are cut into partitions, and how a partition becomes documents.

listing.py     URIs -> objects, and which of those of an earlier time are gone
formats.py     format and compression by name; what a column may be
splitting.py   objects -> partitions, with everything checked that can be known before work starts
opening.py     an object, opened at the version that was planned
decompressing.py  compressed bytes -> plain ones, in bounded memory
encodings.py   bytes in other encodings -> UTF-8
records.py     bytes -> lines and paragraphs, each at its offset
csvrecords.py  bytes -> CSV records, in the dialect of dialect.py
csvfields.py   a CSV record -> its fields
csvdocuments.py  a CSV object, or a range of it -> documents
lenientjson.py JSON as it is in the wild
parsing.py     a line, a CSV record, a paragraph -> a document or a reject
parquet.py     Parquet: footers and row groups
pages.py       what a row group's pages take, before they are decoded
thrift.py      Parquet's own headers
columns.py     Arrow columns -> texts, ids and kept values, or rejects
batches.py     documents -> Arrow batches
counting.py    what is counted beside: lines by themselves, oddities
reader.py      DocumentReader: a partition's documents
"""

from corpuscore.corpus.counting import ReadCounts
from corpuscore.corpus.listing import CorpusObject, confirm_gone, find_departed, list_objects, list_versions
from corpuscore.corpus.reader import DocumentReader
from corpuscore.corpus.splitting import split

__all__ = [
    "CorpusObject",
    "DocumentReader",
    "ReadCounts",
    "confirm_gone",
    "find_departed",
    "list_objects",
    "list_versions",
    "split",
]
