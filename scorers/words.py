"""Where words begin and end, decided for all characters of a batch at once.

Three ways to cut, each taken from the tools whose numbers we reproduce:

- `cut_words`: words and punctuation marks, close to spaCy's English tokenizer, which datatrove uses for the
  Gopher and FineWeb rules ("It's 5.00, (almost)..." -> It 's 5.00 , ( almost ) ...).
- `cut_raw_words`: NLTK's WordPunctTokenizer, which RedPajama-v2 uses on raw text (It ' s 5 . 00 , ( almost )...).
- `cut_spaced_words`: at white space; RedPajama-v2 uses it on normalised text, C4 on lines.

Scripts that write no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and others, see
`characters.Class.UNSPACED`) are cut the same way by all three: each letter or punctuation mark, with the combining
marks that follow it, is a word. So counts of words and n-grams mean something there, and mean word lengths are 1
or a little more; thresholds published for English do not transfer. Korean writes spaces and needs no such rule.
"""

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

from gristmill.scorers.characters import NUM_CODE_POINTS, Class, class_table

Chars = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Edge:
    """What a punctuation mark or symbol does to the word it touches, as bits of `edge_table`."""

    OPENS = np.uint8(1 << 0)
    """Is cut off at the start of a piece of text between spaces."""
    CLOSES = np.uint8(1 << 1)
    """Is cut off at its end."""
    CLOSES_NUMBER = np.uint8(1 << 2)
    """Is cut off at its end when it follows a digit."""
    JOINS_LETTERS = np.uint8(1 << 3)
    """Is cut out between a letter or digit and a letter."""
    JOINS_DIGITS = np.uint8(1 << 4)
    """Is cut out between two digits."""
    APOSTROPHE = np.uint8(1 << 5)


@cache
def edge_table() -> npt.NDArray[np.uint8]:
    """Edges of every code point: uint8[0x110000]."""
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    for code in np.flatnonzero(class_table() & (Class.PUNCTUATION | Class.SYMBOL)).tolist():
        char = chr(code)
        category = unicodedata.category(char)
        edges = np.uint8(0)
        if char not in "@/\\-.|^~" and (category != "Pd" or char in "–—"):
            edges |= Edge.OPENS
            if char in "%+" or category == "Sc":
                edges |= Edge.CLOSES_NUMBER
            elif char not in "§=":
                edges |= Edge.CLOSES
        if category == "Pd" or char in "~:<>=/":
            edges |= Edge.JOINS_LETTERS
        if char in "+-*^":
            edges |= Edge.JOINS_DIGITS
        if char in "'’":
            edges |= Edge.APOSTROPHE
        table[code] = edges
    table.flags.writeable = False
    return table


def cut_words(chars: Chars, classes: Classes, at: Positions) -> tuple[Positions, Positions]:
    """Cut text into words and punctuation marks, close to spaCy's English tokenizer.

    Text between spaces is one piece, from which are cut: marks at its start and end, one by one (dots in a row
    together; not the dot of "U.S." or "J."); inside, dots in a row, a dot between lower and upper case, a comma
    between letters, hyphens and `:<>=/~` before a letter, `+-*^` between digits; and the end of a contraction
    (it|'s, don|'t, we|'ll). Where this differs from spaCy 3.8: abbreviations (Mr., Jan.) and emoticons lose
    their mark, "cannot" and "10km" stay whole, "n't" is cut after its n, addresses with a slash are cut.

    Args:
        chars: Code points, uint32[c], the first and the last a space.
        classes: Their classes, uint16[c].
        at: Where punctuation marks and symbols stand, ascending, int64[p].

    Returns:
        Starts and ends of the words, int64[w] each.
    """
    num_chars = len(chars)
    if len(at) == 0:
        return cut_spaced_words(classes)
    char, edges = chars[at], edge_table()[chars[at]]
    before, after = classes[at - 1], classes[at + 1]

    adjacent = np.diff(at) == 1
    run_first, run_last = _runs(adjacent & (char[1:] == char[:-1]))
    dot, single = char == ord("."), run_first == run_last
    ellipsis = (dot & ~single) | (char == ord("…"))

    opens = _has(edges, Edge.OPENS) | ellipsis
    first, _ = _runs(adjacent & opens[1:] & opens[:-1])
    leading = opens & _has(before, Class.SPACE)[first]

    lone_capital = _has(before, Class.UPPER) & ~_has(classes[at - 2], Class.UPPER)
    closes = (
        _has(edges, Edge.CLOSES)
        | (_has(edges, Edge.CLOSES_NUMBER) & _has(before, Class.DIGIT))
        | (dot & ~lone_capital & ~_has(before, Class.SPACE))
        | ellipsis
    )
    _, last = _runs(adjacent & closes[1:] & closes[:-1])
    trailing = closes & _has(after, Class.SPACE)[last]

    inside = ~leading & ~trailing
    run_before, run_after = before[run_first], after[run_last]
    joins = (
        (dot & _has(run_before, Class.LOWER) & _has(run_after, Class.UPPER))
        | ((char == ord(",")) & _has(run_before, Class.ALPHA) & _has(run_after, Class.ALPHA))
        | (
            _has(edges, Edge.JOINS_LETTERS)
            & _has(run_before, Class.ALPHA | Class.DIGIT)
            & _has(run_after, Class.ALPHA)
        )
        | (_has(edges, Edge.JOINS_DIGITS) & _has(run_before, Class.DIGIT) & _has(run_after, Class.DIGIT))
    )
    contraction = (
        _has(edges, Edge.APOSTROPHE)
        & inside
        & single
        & _has(before, Class.ALPHA | Class.DIGIT)
        & _has(after, Class.ALPHA)
        & ~(
            _has(classes[np.minimum(at + 2, num_chars - 1)], Class.ALPHA)
            & _has(classes[np.minimum(at + 3, num_chars - 1)], Class.ALPHA)
        )
    )
    alone = ~inside & ~ellipsis
    whole_run = ellipsis | (joins & inside)
    is_first, is_last = run_first == np.arange(len(at)), run_last == np.arange(len(at))
    cut = _unspaced_cuts(classes)
    cut[at[alone | contraction | (whole_run & is_first)]] = True
    cut[at[alone | (whole_run & is_last)] + 1] = True
    return _pieces(~_has(classes, Class.SPACE), cut)


def cut_raw_words(classes: Classes) -> tuple[Positions, Positions]:
    r"""Cut text into the matches of `\w+|[^\w\s]+`, where `\w` takes in combining marks."""
    cut = _unspaced_cuts(classes)
    word = _has(classes, Class.WORD)
    cut[1:] |= word[1:] != word[:-1]
    return _pieces(~_has(classes, Class.SPACE), cut)


def cut_spaced_words(classes: Classes) -> tuple[Positions, Positions]:
    """Cut text at white space."""
    return _pieces(~_has(classes, Class.SPACE), _unspaced_cuts(classes))


def _has(flags: npt.NDArray[np.unsignedinteger], wanted: np.unsignedinteger) -> Mask:
    return (flags & wanted) != 0


def _runs(joined: Mask) -> tuple[Positions, Positions]:
    """First and last index of the run each element lies in, given which neighbours belong together: bool[n-1]."""
    index = np.arange(len(joined) + 1)
    starts = np.ones(len(index), np.bool_)
    starts[1:] = ~joined
    run = np.cumsum(starts) - 1
    first = index[starts]
    last = np.append(first[1:], len(index)) - 1
    return first[run], last[run]


def _unspaced_cuts(classes: Classes) -> Mask:
    """Cuts around each character of a script without spaces, combining marks staying with it: bool[c]."""
    unspaced = _has(classes, Class.UNSPACED)
    cut = np.zeros(len(classes), np.bool_)
    if unspaced.any():
        cut[1:] = (unspaced[1:] | unspaced[:-1]) & ~_has(classes[1:], Class.MARK)
    return cut


def _pieces(inside: Mask, cut: Mask) -> tuple[Positions, Positions]:
    """Starts and ends of the stretches of `inside` between cuts; the outermost characters are not inside."""
    starts = np.flatnonzero(inside[1:] & (cut[1:] | ~inside[:-1])) + 1
    ends = np.flatnonzero(inside[:-1] & (cut[1:] | ~inside[1:])) + 1
    return starts, ends
