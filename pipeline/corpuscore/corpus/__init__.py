"""The corpus: which objects it has, how they are cut into partitions, and how a partition becomes documents.

patterns.py    what a URI may mean, and what exclude patterns leave out
tables/        Delta, Iceberg and Hugging Face: which objects a snapshot is made of
listing.py     URIs -> objects
departed.py    which of those of an earlier time are gone
apart.py       whether corpus and work location lie in one another
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
jsonvalues.py  values of a line of JSON, as they are written
parquet.py     Parquet: footers and row groups
arrowfiles.py  Arrow IPC and Feather: record batches
warcs.py       web archives: plain-text records
pages.py       what a row group's pages take, before they are decoded
thrift.py      Parquet's own headers
fields.py      rows of Arrow -> documents, by the fields of their schema
columns.py     Arrow columns -> texts, ids and kept values, or rejects
written.py     typed values as text
nested.py      nested values as JSON
sizes.py       how many bytes each row of a column holds
keeping.py     kept columns over all objects: one type for each
batches.py     documents -> Arrow batches
columntypes.py what types an object's columns have
counting.py    what is counted beside: lines by themselves, oddities
reader.py      DocumentReader: a partition's documents
"""

from corpuscore.corpus.apart import check_apart
from corpuscore.corpus.counting import ReadCounts
from corpuscore.corpus.departed import confirm_gone, find_departed
from corpuscore.corpus.keeping import KeptColumns
from corpuscore.corpus.listing import CorpusObject, list_objects, list_versions
from corpuscore.corpus.reader import DocumentReader
from corpuscore.corpus.splitting import split, spread

__all__ = [
    "CorpusObject",
    "DocumentReader",
    "KeptColumns",
    "ReadCounts",
    "check_apart",
    "confirm_gone",
    "find_departed",
    "list_objects",
    "list_versions",
    "split",
    "spread",
]
