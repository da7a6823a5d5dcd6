-- The published rule sets as macros over the columns of the `rules` scorer; MinHash LSH over those of `minhash`.
--
-- A macro cannot see columns, so each takes the columns it asks about, by position, and the published thresholds as
-- named parameters. The columns `gopher_pass` and so on, with these thresholds, are in rule_sets.sql; to change one:
--
--   gopher_quality_passes(gopher_word_count, ..., min_words := 20)
--
-- Each agrees with the filter of that name in datatrove 0.10.1, where there is one, but for the cutting of words.

-- Gopher quality (arXiv 2112.11446, A.1.1).
CREATE OR REPLACE MACRO gopher_quality_passes(
    word_count, mean_word_length, hash_to_word_ratio, ellipsis_to_word_ratio, frac_bullet_lines,
    frac_ellipsis_lines, frac_alpha_words, num_stop_words,
    min_words := 50, max_words := 100000, min_mean_word_length := 3, max_mean_word_length := 10,
    max_symbol_to_word_ratio := 0.1, max_bullet_lines := 0.9, max_ellipsis_lines := 0.3,
    min_alpha_words := 0.8, min_stop_words := 2
) AS
    word_count BETWEEN min_words AND max_words
    AND mean_word_length BETWEEN min_mean_word_length AND max_mean_word_length
    AND hash_to_word_ratio <= max_symbol_to_word_ratio
    AND ellipsis_to_word_ratio <= max_symbol_to_word_ratio
    AND frac_bullet_lines <= max_bullet_lines
    AND frac_ellipsis_lines <= max_ellipsis_lines
    AND frac_alpha_words >= min_alpha_words
    AND num_stop_words >= min_stop_words;

-- Gopher repetition (arXiv 2112.11446, table A1).
CREATE OR REPLACE MACRO gopher_repetition_passes(
    frac_dup_lines, frac_dup_paragraphs, frac_chars_dup_lines, frac_chars_dup_paragraphs,
    frac_chars_top_2gram, frac_chars_top_3gram, frac_chars_top_4gram,
    frac_chars_dupe_5grams, frac_chars_dupe_6grams, frac_chars_dupe_7grams,
    frac_chars_dupe_8grams, frac_chars_dupe_9grams, frac_chars_dupe_10grams,
    max_dup_lines := 0.3, max_dup_paragraphs := 0.3, max_chars_dup_lines := 0.2, max_chars_dup_paragraphs := 0.2,
    max_top_2gram := 0.2, max_top_3gram := 0.18, max_top_4gram := 0.16,
    max_dupe_5grams := 0.15, max_dupe_6grams := 0.14, max_dupe_7grams := 0.13,
    max_dupe_8grams := 0.12, max_dupe_9grams := 0.11, max_dupe_10grams := 0.1
) AS
    frac_dup_lines <= max_dup_lines
    AND frac_dup_paragraphs <= max_dup_paragraphs
    AND frac_chars_dup_lines <= max_chars_dup_lines
    AND frac_chars_dup_paragraphs <= max_chars_dup_paragraphs
    AND frac_chars_top_2gram <= max_top_2gram
    AND frac_chars_top_3gram <= max_top_3gram
    AND frac_chars_top_4gram <= max_top_4gram
    AND frac_chars_dupe_5grams <= max_dupe_5grams
    AND frac_chars_dupe_6grams <= max_dupe_6grams
    AND frac_chars_dupe_7grams <= max_dupe_7grams
    AND frac_chars_dupe_8grams <= max_dupe_8grams
    AND frac_chars_dupe_9grams <= max_dupe_9grams
    AND frac_chars_dupe_10grams <= max_dupe_10grams;

-- C4, for the page left after lines were removed (datatrove: 5 sentences; JMLR 21-140: 3 sentences).
CREATE OR REPLACE MACRO c4_passes(
    num_sentences, num_lorem_ipsum, num_curly_bracket, min_sentences := 5
) AS
    num_sentences >= min_sentences AND num_lorem_ipsum = 0 AND num_curly_bracket = 0;

-- Chance that MinHash LSH finds a pair of this Jaccard similarity: 1 - (1 - s^rows)^bands.
CREATE OR REPLACE MACRO collision_probability(jaccard, num_bands, rows_per_band) AS
    1 - pow(1 - pow(jaccard, rows_per_band), num_bands);

-- Estimated Jaccard similarity of two documents with shingles, by `minhash_signature`: the share of equal values.
CREATE OR REPLACE MACRO estimate_jaccard(left_signature, right_signature) AS
    list_avg([
        (left_signature[4 * i + 1 : 4 * i + 4] = right_signature[4 * i + 1 : 4 * i + 4])::INTEGER
        FOR i IN range(octet_length(left_signature) // 4)
    ]);

-- The bands of a `minhash_signature`: documents that share the band of some number are candidates for a pair.
CREATE OR REPLACE MACRO signature_bands(signature, num_bands, rows_per_band) AS
    CASE WHEN num_bands >= 1 AND rows_per_band >= 1 AND 4 * num_bands * rows_per_band <= octet_length(signature)
        THEN [
            signature[4 * rows_per_band * i + 1 : 4 * rows_per_band * (i + 1)]
            FOR i IN range(num_bands)
        ]
        ELSE error(
            num_bands || ' bands of ' || rows_per_band || ' rows do not fit a signature of '
            || octet_length(signature) // 4 || ' values; use fewer bands or rows, at least 1 of each'
        )
    END;

-- FineWeb (arXiv 2406.17557, section 3.5).
CREATE OR REPLACE MACRO fineweb_passes(
    line_punct_ratio, short_line_ratio, char_dup_ratio, newline_to_word_ratio,
    min_line_punct_ratio := 0.12, max_short_line_ratio := 0.67, max_char_dup_ratio := 0.01,
    max_newline_to_word_ratio := 0.3
) AS
    line_punct_ratio >= min_line_punct_ratio
    AND short_line_ratio <= max_short_line_ratio
    AND char_dup_ratio <= max_char_dup_ratio
    AND newline_to_word_ratio <= max_newline_to_word_ratio;
