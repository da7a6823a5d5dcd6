"""Every feature of the `rules` scorer for one document, in plain Python, written from the published definitions.

Slow and obvious on purpose: the vectorised scorer must return exactly these numbers. Where a definition is
ours (words in scripts without spaces, the end of a line, the end of a sentence) the scorer's docstrings say so.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from itertools import pairwise

from gristmill.scorers.stop_words import ENGLISH

NEVER_AT_AN_EDGE = set("@/\\-.|^~")
GOPHER_STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
RPS_BULLETS = tuple("•‣▶◀◦■□▪▫–")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3001-\u303f\u3041-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9ff\uaa60-\uaa7f\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U000323af]"
)
# Unicode property Sentence_Terminal, which FineWeb takes for the end of a line.
SENTENCE_TERMINALS = re.compile(
    "[!.?\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b\u1362\u1367"
    "\u1368\u166e\u1735\u1736\u17d4-\u17d6\u17d9\u17da\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b5a\u1b5b\u1b5e\u1b5f"
    "\u1b7d\u1b7e\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047-\u2049\u2e2e\u2e3c\u2e53\u2e54\u3002\ua4ff\ua60e\ua60f"
    "\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb\ufe52\ufe56\ufe57\uff01"
    "\uff0e\uff1f\uff61\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048"
    "\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df\U00011238"
    "\U00011239\U0001123b\U0001123c\U000112a9\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9-\U000115d7"
    "\U00011641\U00011642\U0001173c-\U0001173e\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c"
    "\U00011c41\U00011c42\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37"
    "\U00016b38\U00016b44\U00016e98\U0001bc9f\U0001da88]"
)


# --- characters ---


def category(char: str) -> str:
    return unicodedata.category(char) if char else ""


def is_alpha(char: str) -> bool:
    return category(char)[:1] == "L"


def is_digit(char: str) -> bool:
    return category(char) == "Nd"


def is_lower(char: str) -> bool:
    return char.islower() or category(char) == "Lt"


def is_mark(char: str) -> bool:
    return category(char)[:1] == "M"


def is_unspaced(char: str) -> bool:
    return category(char)[:1] != "N" and UNSPACED.match(char) is not None


def is_special(char: str) -> bool:
    return category(char)[:1] in {"P", "S"}


def is_word_char(char: str) -> bool:
    """Python's `\\w`, and combining marks."""
    return char == "_" or category(char)[:1] in {"L", "M", "N"}


def lower(text: str) -> str:
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


# --- words ---


def split_unspaced(piece: str) -> list[str]:
    """Each character of a script without spaces, with the marks that follow it, is a piece of its own."""
    pieces = [""]
    previous = ""
    for char in piece:
        if not is_mark(char) and (is_unspaced(char) or (previous and is_unspaced(previous))):
            pieces.append("")
        pieces[-1] += char
        previous = char
    return [piece for piece in pieces if piece]


def spaced_words(text: str) -> list[str]:
    return [word for chunk in text.split() for word in split_unspaced(chunk)]


def words(text: str) -> list[str]:
    """Words and punctuation marks, cut close to spaCy's English tokenizer."""
    return [word for chunk in text.split() for piece in cut_chunk(chunk) for word in split_unspaced(piece)]


def cut_chunk(chunk: str) -> list[str]:
    def at(index: int) -> str:
        return chunk[index] if 0 <= index < len(chunk) else ""

    cuts = {0, len(chunk)}
    runs = [(match.start(), match.end()) for match in re.finditer(r"(.)\1*", chunk, re.DOTALL)]
    ellipsis = set()
    for start, end in runs:
        if chunk[start] == "…" or (chunk[start] == "." and end - start > 1):
            ellipsis.update(range(start, end))
            cuts |= {start, end}

    def opens(index: int) -> bool:
        char = chunk[index]
        return index in ellipsis or (
            is_special(char) and char not in NEVER_AT_AN_EDGE and (category(char) != "Pd" or char in "–—")
        )

    def closes(index: int) -> bool:
        char, before = chunk[index], at(index - 1)
        if index in ellipsis:
            return True
        if char == ".":
            lone_capital = before.isupper() and not at(index - 2).isupper()
            return index > 0 and not lone_capital
        if char in "%+" or category(char) == "Sc":
            return is_digit(before)
        return opens(index) and char not in "§="

    first = 0
    while first < len(chunk) and opens(first):
        first += 1
    last = len(chunk)
    while last > 0 and closes(last - 1):
        last -= 1
    for index in [*range(first), *range(last, len(chunk))]:
        if index not in ellipsis:
            cuts |= {index, index + 1}

    for start, end in runs:
        inner = [index for index in range(start, end) if first <= index < last]
        if not inner or not is_special(chunk[start]):
            continue
        char, before, after = chunk[start], at(start - 1), at(end)
        infix = (
            (char == "." and is_lower(before) and after.isupper())
            or (char == "," and is_alpha(before) and is_alpha(after))
            or (
                (char in "~:<>=/" or category(char) == "Pd")
                and (is_alpha(before) or is_digit(before))
                and is_alpha(after)
            )
            or (char in "+-*^" and is_digit(before) and is_digit(after))
        )
        if infix:
            cuts |= {start, end}
        contraction = (
            char in "'’"
            and end - start == 1
            and (is_alpha(before) or is_digit(before))
            and is_alpha(after)
            and not (is_alpha(at(end + 1)) and is_alpha(at(end + 2)))
        )
        if contraction:
            cuts.add(start)
    ordered = sorted(cuts)
    return [chunk[start:end] for start, end in pairwise(ordered)]


def raw_words(text: str) -> list[str]:
    """NLTK's WordPunctTokenizer: runs of word characters, and runs of other characters that are not spaces."""
    pieces = []
    for chunk in text.split():
        kind = None
        for char in chunk:
            if is_word_char(char) != kind:
                pieces.append("")
                kind = is_word_char(char)
            pieces[-1] += char
    return [word for piece in pieces for word in split_unspaced(piece)]


def normalized_words(text: str) -> list[str]:
    return spaced_words(lower(text.translate(str.maketrans("", "", string.punctuation))))


def normalized_length(text: str) -> int:
    """Characters of the lower-cased text without ASCII punctuation, white space collapsed and stripped."""
    return len(" ".join(text.translate(str.maketrans("", "", string.punctuation)).split()))


# --- repetition ---


def ngrams(sequence: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(sequence[index : index + n]) for index in range(len(sequence) - n + 1)]


def top_ngram(sequence: list[str], n: int) -> tuple[tuple[str, ...], int]:
    """The most frequent n-gram, the first of equals, and how often it occurs."""
    grams = Counter(ngrams(sequence, n))
    return max(grams.items(), key=lambda item: item[1]) if grams else ((), 0)


def covered_words(sequence: list[str], n: int) -> list[str]:
    """The words that lie in any n-gram which occurs more than once."""
    grams = ngrams(sequence, n)
    counts = Counter(grams)
    covered = set()
    for index, gram in enumerate(grams):
        if counts[gram] > 1:
            covered.update(range(index, index + n))
    return [sequence[index] for index in sorted(covered)]


def repeated_words(sequence: list[str], n: int) -> list[str]:
    """The words of n-grams seen before, read from left to right without overlap."""
    grams = ngrams(sequence, n)
    seen = set()
    repeats = []
    for gram in grams:
        repeats.append(gram in seen)
        seen.add(gram)
    found, index = [], 0
    while index < len(grams):
        if repeats[index]:
            found += grams[index]
            index += n
        else:
            index += 1
    return found


def later_copies(pieces: list[str]) -> list[str]:
    seen = set()
    return [piece for piece in pieces if piece in seen or seen.add(piece)]


def num_chars(pieces: list[str] | tuple[str, ...]) -> int:
    return sum(map(len, pieces))


# --- C4 ---


def num_sentences(line: str) -> int:
    """One, plus the ends of sentence before the end of the line.

    An end of sentence is a run of punctuation (or removed citations) before white space that holds a sentence
    terminal other than an ellipsis and the point after a lone capital letter.
    """
    line = line.rstrip()
    citation_chars = {i for match in CITATION.finditer(line) for i in range(match.start(), match.end())}
    marks = {i for i, char in enumerate(line) if category(char)[:1] == "P"} | citation_chars

    def ends_sentence(i: int) -> bool:
        if i in citation_chars or not SENTENCE_TERMINALS.match(line[i]):
            return False
        if line[i] != ".":
            return True
        if "." in (line[i - 1 : i], line[i + 1 : i + 2]):
            return False
        return not (line[i - 1 : i].isupper() and not line[max(0, i - 2) : max(0, i - 1)].isupper())

    count, i = 1, 0
    while i < len(line):
        if i not in marks:
            i += 1
            continue
        end = i
        while end in marks:
            end += 1
        if line[end : end + 1].isspace() and any(map(ends_sentence, range(i, end))):
            count += 1
        i = end
    return count


def c4_line(line: str, min_words: int) -> str:
    """What C4 does with a line: the reason it goes, or an empty string."""
    line = line.strip()
    tokens = spaced_words(line)
    if any(len(token) > 1000 for token in tokens):
        return "long word"
    lowered = lower(line)
    line = CITATION.sub("", line)
    if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("..."):
        return "no terminal punctuation"
    if len(tokens) < min_words:
        return "few words"
    if "lorem ipsum" in lowered:
        return "lorem ipsum"
    if "javascript" in lowered:
        return "javascript"
    if "{" in line:
        return "curly bracket"
    if any(phrase in lowered for phrase in POLICY):
        return "policy"
    return ""


def c4_features(text: str) -> dict[str, float]:
    lines = text_lines(text)
    features: dict[str, float] = {"c4_num_lines": len(lines)}
    for min_words in (3, 5):
        fates = [c4_line(line, min_words) for line in lines]
        kept = [line for line, fate in zip(lines, fates, strict=True) if not fate]
        features |= {
            f"c4_num_kept_lines_{min_words}_words": len(kept),
            f"c4_num_sentences_{min_words}_words": sum(map(num_sentences, kept)),
            f"c4_num_lorem_ipsum_lines_{min_words}_words": fates.count("lorem ipsum"),
            f"c4_num_curly_bracket_lines_{min_words}_words": fates.count("curly bracket"),
        }
    lowered = [lower(line) for line in lines]
    features["c4_num_javascript_lines"] = sum("javascript" in line for line in lowered)
    features["c4_num_policy_lines"] = sum(any(phrase in line for phrase in POLICY) for line in lowered)
    return features


# --- the features ---


def text_lines(text: str) -> list[str]:
    """Lines end at a newline and nowhere else; the last newline opens no further line."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def features(text: str) -> dict[str, float]:
    """All columns of the `rules` scorer for one document."""
    return gopher_features(text) | c4_features(text) | fineweb_features(text) | redpajama_features(text)


def gopher_features(text: str) -> dict[str, float]:
    tokens = words(text)
    alphanumeric = [word for word in tokens if any(category(char)[:1] in {"L", "N"} for char in word)]
    lines = text_lines(text)
    full_lines = [line for line in text.split("\n") if line]
    paragraphs = [paragraph for paragraph in re.split(r"\n{2,}", text.strip("\n")) if paragraph]
    features = {
        "gopher_word_count": len(alphanumeric),
        "gopher_mean_word_length": ratio(num_chars(alphanumeric), len(alphanumeric)),
        "gopher_hash_to_word_ratio": ratio(text.count("#"), len(tokens)),
        "gopher_ellipsis_to_word_ratio": ratio(text.count("...") + text.count("…"), len(tokens)),
        "gopher_frac_bullet_lines": ratio(
            sum(line.lstrip().startswith(("•", "-")) for line in lines), len(lines)
        ),
        "gopher_frac_ellipsis_lines": ratio(
            sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)
        ),
        "gopher_frac_alpha_words": ratio(
            sum(any(is_alpha(char) for char in word) for word in tokens), len(tokens)
        ),
        "gopher_num_stop_words": len(GOPHER_STOP_WORDS & set(tokens)),
        "gopher_frac_dup_lines": ratio(len(later_copies(full_lines)), len(full_lines)),
        "gopher_frac_chars_dup_lines": ratio(num_chars(later_copies(full_lines)), len(text)),
        "gopher_frac_dup_paragraphs": ratio(len(later_copies(paragraphs)), len(paragraphs)),
        "gopher_frac_chars_dup_paragraphs": ratio(num_chars(later_copies(paragraphs)), len(text)),
    }
    for n in (2, 3, 4):
        gram, count = top_ngram(tokens, n)
        features[f"gopher_frac_chars_top_{n}gram"] = ratio(len(" ".join(gram)) * count, len(text))
    for n in range(5, 11):
        features[f"gopher_frac_chars_dupe_{n}grams"] = ratio(num_chars(repeated_words(tokens, n)), len(text))
    return features


def fineweb_features(text: str) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    return {
        "fineweb_line_punct_ratio": ratio(
            sum(bool(SENTENCE_TERMINALS.match(line[-1])) for line in lines), len(lines)
        ),
        "fineweb_short_line_ratio_30_chars": ratio(sum(len(line) <= 30 for line in lines), len(lines)),
        "fineweb_char_dup_ratio": ratio(num_chars(later_copies(lines)), len(text.replace("\n", ""))),
        "fineweb_newline_to_word_ratio": ratio(text.count("\n"), len(words(text))),
    }


def redpajama_features(text: str) -> dict[str, float]:
    raw, normalized = raw_words(text), normalized_words(text)
    lines = text_lines(text)
    with_newline = [line + "\n" for line in lines]
    if with_newline and not text.endswith("\n"):
        with_newline[-1] = lines[-1]
    counts = Counter(normalized)
    symbols = text.count("#") + text.count("...") + text.count("…")
    segments = re.split(r"[.!?]", text)
    features = {
        "rps_doc_curly_bracket": ratio(text.count("{") + text.count("}"), len(text)),
        "rps_doc_frac_all_caps_words": ratio(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_frac_lines_end_with_ellipsis": ratio(
            sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)
        ),
        "rps_doc_frac_no_alph_words": ratio(
            sum(not any(is_alpha(char) for char in word) for word in raw), len(raw)
        ),
        "rps_doc_frac_unique_words": ratio(len(counts), len(normalized)),
        "rps_doc_lorem_ipsum": ratio(
            " ".join(normalize_spaces(text)).count("lorem ipsum"), normalized_length(text)
        ),
        "rps_doc_mean_word_length": ratio(num_chars(normalized), len(normalized)),
        "rps_doc_num_sentences": sum(any(map(is_word_char, segment)) for segment in segments),
        "rps_doc_stop_word_fraction": ratio(sum(word in ENGLISH for word in normalized), len(normalized)),
        "rps_doc_symbol_to_word_ratio": ratio(symbols, len(raw)),
        "rps_doc_unigram_entropy": sum(
            -count / len(normalized) * math.log(count / len(normalized)) for count in counts.values()
        ),
        "rps_doc_word_count": len(normalized),
        "rps_lines_ending_with_terminal_punctution_mark": ratio(
            sum(line.rstrip().endswith((".", "!", "?", "”")) for line in lines), len(lines)
        ),
        "rps_lines_javascript_counts": ratio(normalized.count("javascript"), len(lines)),
        "rps_lines_num_words": ratio(len(normalized), len(lines)),
        "rps_lines_numerical_chars_fraction": ratio(
            sum(ratio(sum(map(str.isnumeric, line)), normalized_length(line)) for line in lines), len(lines)
        ),
        "rps_lines_start_with_bulletpoint": ratio(
            sum(line.lstrip().startswith(RPS_BULLETS) for line in lines), len(lines)
        ),
        "rps_lines_uppercase_letter_fraction": ratio(
            sum(ratio(sum(map(str.isupper, line)), len(line)) for line in with_newline), len(lines)
        ),
    }
    for n in (2, 3, 4):
        gram, count = top_ngram(normalized, n)
        features[f"rps_doc_frac_chars_top_{n}gram"] = ratio(
            num_chars(gram) * count if count > 1 else 0, num_chars(normalized)
        )
    for n in range(5, 11):
        features[f"rps_doc_frac_chars_dupe_{n}grams"] = ratio(
            num_chars(covered_words(normalized, n)), num_chars(normalized)
        )
    return features


def normalize_spaces(text: str) -> list[str]:
    return lower(text.translate(str.maketrans("", "", string.punctuation))).split()
