"""What each column of the `rules` scorer means."""

import pyarrow as pa

from gristmill.scorers.base import Column

GOPHER_QUALITY = "Gopher, arXiv 2112.11446, section A.1.1, quality filtering; as in datatrove 0.10.1"
GOPHER_REPETITION = "Gopher, arXiv 2112.11446, table A1, repetition removal; as in datatrove 0.10.1"
C4 = "C4, JMLR 21-140, section 2.2, and c4_utils.py of TensorFlow Datasets"
FINEWEB = "FineWeb, arXiv 2406.17557, section 3.5; FineWebQualityFilter of datatrove 0.10.1"
REDPAJAMA = "RedPajama-v2 quality signals, core/quality_signals of its code"

WORDS = "words are cut by words.cut_words, not by spaCy"
LINES = "only a newline ends a line, and empty lines at either end of the text are not counted"
NORMALIZED = (
    "no Unicode normalisation (NFD), lower case code point by code point, and each letter of a script without "
    "spaces is a word"
)
RAW = "combining marks belong to words, and each letter of a script without spaces is a word"
MEAN = "the mean over lines, which the signal lists one by one"


def _count(name: str, unit: str, description: str, source: str, deviation: str = "") -> Column:
    return Column(
        name=name,
        type=pa.int64(),
        description=description,
        unit=unit,
        minimum=0,
        source=source,
        deviation=deviation,
    )


def _fraction(
    name: str, description: str, source: str, deviation: str = "", higher_is_better: bool | None = None
) -> Column:
    return Column(
        name=name,
        type=pa.float64(),
        description=description,
        unit="fraction",
        minimum=0,
        maximum=1,
        higher_is_better=higher_is_better,
        empty=0.0,
        source=source,
        deviation=deviation,
    )


def _number(
    name: str,
    unit: str,
    description: str,
    source: str,
    deviation: str = "",
    higher_is_better: bool | None = None,
) -> Column:
    return Column(
        name=name,
        type=pa.float64(),
        description=description,
        unit=unit,
        minimum=0,
        higher_is_better=higher_is_better,
        empty=0.0,
        source=source,
        deviation=deviation,
    )


GOPHER_COLUMNS = (
    _count(
        "gopher_word_count",
        "words",
        "Words that hold a letter or a number.",
        GOPHER_QUALITY,
        f"{WORDS}; emoji and currency signs are no words",
    ),
    _number(
        "gopher_mean_word_length",
        "characters",
        "Mean length of the words that gopher_word_count counts.",
        GOPHER_QUALITY,
        WORDS,
    ),
    _number(
        "gopher_hash_to_word_ratio",
        "hash signs per word",
        "Hash signs over words, punctuation marks counted as words.",
        GOPHER_QUALITY,
        WORDS,
        higher_is_better=False,
    ),
    _number(
        "gopher_ellipsis_to_word_ratio",
        "ellipses per word",
        'Occurrences of "..." and "…" over words, punctuation marks counted as words.',
        GOPHER_QUALITY,
        WORDS,
        higher_is_better=False,
    ),
    _fraction(
        "gopher_frac_bullet_lines",
        "Lines whose first character after white space is a bullet or a hyphen, over lines.",
        GOPHER_QUALITY,
        LINES,
        higher_is_better=False,
    ),
    _fraction(
        "gopher_frac_ellipsis_lines",
        "Lines that end in an ellipsis before white space, over lines.",
        GOPHER_QUALITY,
        LINES,
        higher_is_better=False,
    ),
    _fraction(
        "gopher_frac_alpha_words",
        "Words that hold a letter, over words, punctuation marks counted as words.",
        GOPHER_QUALITY,
        WORDS,
        higher_is_better=True,
    ),
    _count(
        "gopher_num_stop_words",
        "words",
        "How many of the, be, to, of, and, that, have, with occur, in lower case.",
        GOPHER_QUALITY,
        WORDS,
    ),
    _fraction(
        "gopher_frac_dup_lines",
        "Lines that have an equal one before them, over lines, empty ones left out.",
        GOPHER_REPETITION,
        LINES,
        higher_is_better=False,
    ),
    _fraction(
        "gopher_frac_chars_dup_lines",
        "Characters of lines that have an equal one before them, over all characters.",
        GOPHER_REPETITION,
        LINES,
        higher_is_better=False,
    ),
    _fraction(
        "gopher_frac_dup_paragraphs",
        "Paragraphs (parted by two newlines or more) that have an equal one before them, over paragraphs.",
        GOPHER_REPETITION,
        "white space at either end of the text is not stripped",
        higher_is_better=False,
    ),
    _fraction(
        "gopher_frac_chars_dup_paragraphs",
        "Characters of paragraphs that have an equal one before them, over all characters.",
        GOPHER_REPETITION,
        "white space at either end of the text is not stripped",
        higher_is_better=False,
    ),
    *(
        _number(
            f"gopher_frac_chars_top_{n}gram",
            "fraction, above 1 where occurrences overlap",
            f"Length of the most frequent {n}-gram of words joined by spaces (of equals the first to occur) times "
            "its occurrences, over all characters.",
            GOPHER_REPETITION,
            WORDS,
            higher_is_better=False,
        )
        for n in (2, 3, 4)
    ),
    *(
        _fraction(
            f"gopher_frac_chars_dupe_{n}grams",
            f"Characters of the words of {n}-grams that occurred before, read from left to right without overlap, "
            "over all characters.",
            GOPHER_REPETITION,
            f"{WORDS}; one counts as seen before wherever it occurred, also inside another repeated one",
            higher_is_better=False,
        )
        for n in (5, 6, 7, 8, 9, 10)
    ),
)

C4_COLUMNS = (
    _count("c4_num_lines", "lines", "Lines.", C4, LINES),
    _count("c4_num_javascript_lines", "lines", 'Lines that say "javascript", in any case.', C4, LINES),
    _count(
        "c4_num_policy_lines",
        "lines",
        "Lines that hold one of the six phrases on terms, privacy and cookies, in any case.",
        C4,
        LINES,
    ),
    *(
        column
        for n, which in ((3, "the first preprint and datatrove"), (5, "the paper and its code"))
        for column in (
            _count(
                f"c4_num_kept_lines_{n}_words",
                "lines",
                f"Lines left when those of fewer than {n} words ({which}) and all others that C4 removes are gone.",
                C4,
                LINES,
            ),
            _count(
                f"c4_num_sentences_{n}_words",
                "sentences",
                f"Sentences on the lines that c4_num_kept_lines_{n}_words counts.",
                C4,
                "a sentence ends at terminal punctuation before white space, see c4.count_sentences",
            ),
            _count(
                f"c4_num_lorem_ipsum_lines_{n}_words",
                "lines",
                f'Lines of at least {n} words, sound and well ended, that say "lorem ipsum": one drops the page.',
                C4,
                LINES,
            ),
            _count(
                f"c4_num_curly_bracket_lines_{n}_words",
                "lines",
                f"Such lines of at least {n} words with a curly bracket and without JavaScript: one drops the page.",
                C4,
                LINES,
            ),
        )
    ),
)

FINEWEB_COLUMNS = (
    _fraction(
        "fineweb_line_punct_ratio",
        "Lines whose last character ends sentences (Unicode property Sentence_Terminal), over lines, blank ones "
        "left out.",
        FINEWEB,
        higher_is_better=True,
    ),
    _fraction(
        "fineweb_short_line_ratio_30_chars",
        "Lines of at most 30 characters, over lines, blank ones left out.",
        FINEWEB,
        higher_is_better=False,
    ),
    _fraction(
        "fineweb_char_dup_ratio",
        "Characters of lines that have an equal one before them, over all characters, newlines left out.",
        FINEWEB,
        higher_is_better=False,
    ),
    _number(
        "fineweb_newline_to_word_ratio",
        "newlines per word",
        "Newlines over words, punctuation marks counted as words.",
        FINEWEB,
        WORDS,
        higher_is_better=False,
    ),
)

REDPAJAMA_COLUMNS = (
    _fraction("rps_doc_curly_bracket", "Curly brackets over characters.", REDPAJAMA, higher_is_better=False),
    _fraction("rps_doc_frac_all_caps_words", "Raw words in capitals only, over raw words.", REDPAJAMA, RAW),
    *(
        _fraction(
            f"rps_doc_frac_chars_dupe_{n}grams",
            f"Characters of normalised words that lie in a {n}-gram which occurs more than once, over characters "
            "of normalised words.",
            REDPAJAMA,
            NORMALIZED,
            higher_is_better=False,
        )
        for n in (5, 6, 7, 8, 9, 10)
    ),
    *(
        _number(
            f"rps_doc_frac_chars_top_{n}gram",
            "fraction, above 1 where occurrences overlap",
            f"Characters of the most frequent {n}-gram of normalised words (of equals the first to occur) times its "
            "occurrences, over characters of normalised words; 0 where none occurs twice.",
            REDPAJAMA,
            NORMALIZED,
            higher_is_better=False,
        )
        for n in (2, 3, 4)
    ),
    _fraction(
        "rps_doc_frac_lines_end_with_ellipsis",
        "Lines that end in an ellipsis before white space, over lines.",
        REDPAJAMA,
        higher_is_better=False,
    ),
    _fraction(
        "rps_doc_frac_no_alph_words",
        "Raw words without a letter, over raw words.",
        REDPAJAMA,
        f"a letter of any script counts, not a-z alone; {RAW}",
        higher_is_better=False,
    ),
    _fraction(
        "rps_doc_frac_unique_words", "Distinct normalised words over normalised words.", REDPAJAMA, NORMALIZED
    ),
    _fraction(
        "rps_doc_lorem_ipsum",
        'Occurrences of "lorem ipsum" in the normalised text, over its characters.',
        REDPAJAMA,
        NORMALIZED,
        higher_is_better=False,
    ),
    _number(
        "rps_doc_mean_word_length", "characters", "Mean length of normalised words.", REDPAJAMA, NORMALIZED
    ),
    _count(
        "rps_doc_num_sentences",
        "sentences",
        r"Matches of the expression \b[^.!?]+[.!?]*.",
        REDPAJAMA,
        "combining marks belong to words",
    ),
    _fraction(
        "rps_doc_stop_word_fraction",
        "Normalised words that are stop words (English), over normalised words.",
        REDPAJAMA,
        f"looked up among normalised words instead of raw ones, in English only; {NORMALIZED}",
    ),
    _number(
        "rps_doc_symbol_to_word_ratio",
        "symbols per word",
        'Occurrences of "#", "..." and "…" over raw words.',
        REDPAJAMA,
        RAW,
        higher_is_better=False,
    ),
    _number(
        "rps_doc_unigram_entropy",
        "nats",
        "Entropy of the distribution of normalised words: sum of -p ln p.",
        REDPAJAMA,
        NORMALIZED,
        higher_is_better=True,
    ),
    _count("rps_doc_word_count", "words", "Normalised words.", REDPAJAMA, NORMALIZED),
    _fraction(
        "rps_lines_ending_with_terminal_punctution_mark",
        "Lines that end in one of . ! ? ” before white space, over lines.",
        REDPAJAMA,
        MEAN,
        higher_is_better=True,
    ),
    _number(
        "rps_lines_javascript_counts",
        "words per line",
        'Normalised words that are "javascript", over lines.',
        REDPAJAMA,
        MEAN,
        higher_is_better=False,
    ),
    _number("rps_lines_num_words", "words per line", "Normalised words over lines.", REDPAJAMA, MEAN),
    _fraction(
        "rps_lines_numerical_chars_fraction",
        "Numeric characters over characters of the normalised line, averaged over lines.",
        REDPAJAMA,
        f"{MEAN}; {NORMALIZED}",
        higher_is_better=False,
    ),
    _fraction(
        "rps_lines_start_with_bulletpoint",
        "Lines whose first character after white space is one of ten bullets, over lines.",
        REDPAJAMA,
        MEAN,
        higher_is_better=False,
    ),
    _fraction(
        "rps_lines_uppercase_letter_fraction",
        "Upper-case characters over characters of the line, its newline included, averaged over lines.",
        REDPAJAMA,
        MEAN,
    ),
)

RULE_COLUMNS = GOPHER_COLUMNS + C4_COLUMNS + FINEWEB_COLUMNS + REDPAJAMA_COLUMNS
