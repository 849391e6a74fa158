"""A pack of rules from an OpenAPI 3 description: every operation gets exactly one class.

    bytes -> reading -> document -> classify (with lexicon) -> routes -> pack -> writing

Pure: nothing is fetched, nothing in a description is run or trusted. `importing` is the way in.
"""
