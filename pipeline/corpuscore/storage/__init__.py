"""Object storage: where a corpus is read from, and where manifests, parts and receipts live.

locations.py   which file system serves a URI, and the one spelling of a URI
entries.py     what is there: fresh listings, page by page
store.py       the work location: atomic writes, exclusive creation
documents.py   JSON documents that carry a digest of their content
pointer.py     one small object that several writers swap
leftovers.py   what killed writers leave there
s3.py          s3fs, as it is used here
web.py         http(s)://, one object at a time
patience.py    how long a store that is out of order is waited for
refusals.py    the one place where foreign errors become StorageError or StorageUnavailable
"""

from corpuscore.storage.documents import read_document, read_documents, sealed, write_document
from corpuscore.storage.entries import Entry, find_entry, list_entries
from corpuscore.storage.leftovers import delete_leftovers
from corpuscore.storage.locations import canonical_uri, filesystem, is_listed, link_of, path_of, scheme_of, uri_of
from corpuscore.storage.pointer import Pointed, Pointer
from corpuscore.storage.refusals import translated
from corpuscore.storage.store import Store, concurrently

__all__ = [
    "Entry",
    "Pointed",
    "Pointer",
    "Store",
    "canonical_uri",
    "concurrently",
    "delete_leftovers",
    "filesystem",
    "find_entry",
    "is_listed",
    "link_of",
    "list_entries",
    "path_of",
    "read_document",
    "read_documents",
    "scheme_of",
    "sealed",
    "translated",
    "uri_of",
    "write_document",
]
