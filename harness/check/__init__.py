"""Does a decoder keep the contract? A few photographs through it: what fails, why, and how to mend it.

`conformance` tries a decoder in this process, `child` in one of its own; `causes` names what a wrong result looks like.
"""
