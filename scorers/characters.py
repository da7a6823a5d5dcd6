"""What a character is: one table from code point to classes, built once from the Unicode database."""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

NUM_CODE_POINTS = 0x110000
# Everything assigned, private use aside; what lies beyond has no class.
_ASSIGNED = [range(0x33480), range(0xE0000, 0xE01F0)]


class Class:
    """Classes of a code point, as bits of `class_table`: uint16, so that no comparison widens an array."""

    SPACE = np.uint16(1 << 0)
    """`str.isspace`."""
    ALPHA = np.uint16(1 << 1)
    """Categories L*."""
    NUMBER = np.uint16(1 << 2)
    """Categories N*."""
    MARK = np.uint16(1 << 3)
    """Categories M*: combining marks."""
    PUNCTUATION = np.uint16(1 << 4)
    """Categories P*."""
    SYMBOL = np.uint16(1 << 5)
    """Categories S*."""
    UPPER = np.uint16(1 << 6)
    """`str.isupper`."""
    LOWER = np.uint16(1 << 7)
    """`str.islower`, and title case."""
    DIGIT = np.uint16(1 << 8)
    """Category Nd."""
    NUMERIC = np.uint16(1 << 9)
    """`str.isnumeric`: numbers and the ideographs that stand for numbers."""
    UNDERSCORE = np.uint16(1 << 10)
    ASCII_PUNCTUATION = np.uint16(1 << 11)
    """`string.punctuation`, symbols included."""
    SENTENCE_END = np.uint16(1 << 12)
    """Unicode property Sentence_Terminal."""
    UNSPACED = np.uint16(1 << 13)
    """Letters, marks and punctuation of scripts that write no spaces between words."""
    WORD = ALPHA | NUMBER | MARK | UNDERSCORE
    """`\\w` of a regular expression, and combining marks."""


# Chinese, Japanese, Thai, Lao, Burmese, Khmer, Javanese, Balinese and the scripts of Tai languages; wide punctuation.
_UNSPACED = """
E01-EFF 1000-109F 1780-17FF 1950-19DF 1A20-1AAF 1B00-1B7F 3001-303F 3041-30FF 3105-312F 31A0-31BF 31F0-31FF
3400-4DBF 4E00-9FFF A980-A9FF AA60-AA7F F900-FAFF FF01-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF9F 20000-323AF
"""
_SENTENCE_TERMINAL = """
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6
17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049
2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB
FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143
111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642
1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38
16B44 16E98 1BC9F 1DA88
"""
_BY_CATEGORY = {
    "L": Class.ALPHA,
    "M": Class.MARK,
    "N": Class.NUMBER,
    "P": Class.PUNCTUATION,
    "S": Class.SYMBOL,
}


def code_points(ranges: str) -> npt.NDArray[np.int64]:
    """The code points of a list of hexadecimal ranges such as "21 61D-61F"."""
    bounds = [(entry.split("-")[0], entry.split("-")[-1]) for entry in ranges.split()]
    return np.concatenate([np.arange(int(first, 16), int(last, 16) + 1) for first, last in bounds])


@cache
def class_table() -> npt.NDArray[np.uint16]:
    """Classes of every code point: uint16[0x110000]."""
    codes = np.concatenate([np.array(assigned, np.uint32) for assigned in _ASSIGNED])
    chars = codes.view("U1")
    categories = np.array([unicodedata.category(char) for char in map(chr, codes.tolist())])
    major = categories.astype("U1")
    members = {
        Class.SPACE: np.char.isspace(chars),
        Class.UPPER: np.char.isupper(chars),
        Class.LOWER: np.char.islower(chars) | (categories == "Lt"),
        Class.DIGIT: categories == "Nd",
        Class.NUMERIC: np.char.isnumeric(chars),
        **{class_: major == category for category, class_ in _BY_CATEGORY.items()},
    }
    table = np.zeros(NUM_CODE_POINTS, np.uint16)
    for class_, is_member in members.items():
        table[codes[is_member]] |= class_
    table[ord("_")] |= Class.UNDERSCORE
    ascii_chars = table[:128]
    ascii_chars[ascii_chars & (Class.PUNCTUATION | Class.SYMBOL) != 0] |= Class.ASCII_PUNCTUATION
    table[code_points(_SENTENCE_TERMINAL)] |= Class.SENTENCE_END
    unspaced = code_points(_UNSPACED)
    table[unspaced[table[unspaced] & (Class.NUMBER | Class.SPACE) == 0]] |= Class.UNSPACED
    table.flags.writeable = False
    return table


@cache
def lower_table() -> npt.NDArray[np.uint32]:
    """Lower case of every code point where it is one code point too, else itself: uint32[0x110000]."""
    table = np.arange(NUM_CODE_POINTS, dtype=np.uint32)
    for code in np.flatnonzero(class_table() & (Class.UPPER | Class.LOWER)).tolist():
        lower = chr(code).lower()
        if len(lower) == 1:
            table[code] = ord(lower)
    table.flags.writeable = False
    return table
