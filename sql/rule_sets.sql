-- Rule sets as computed columns of `scores`: each block is an expression over the columns of the `rules` scorer, with
-- the thresholds published for English (macros.sql has them as parameters), or over a classifier's.

-- name: gopher_quality_pass
-- Whether a document passes Gopher's quality rules (arXiv 2112.11446, A.1.1).
gopher_quality_passes(
    gopher_word_count, gopher_mean_word_length, gopher_hash_to_word_ratio, gopher_ellipsis_to_word_ratio,
    gopher_frac_bullet_lines, gopher_frac_ellipsis_lines, gopher_frac_alpha_words, gopher_num_stop_words
)

-- name: gopher_repetition_pass
-- Whether a document passes Gopher's repetition rules (arXiv 2112.11446, table A1).
gopher_repetition_passes(
    gopher_frac_dup_lines, gopher_frac_dup_paragraphs, gopher_frac_chars_dup_lines,
    gopher_frac_chars_dup_paragraphs,
    gopher_frac_chars_top_2gram, gopher_frac_chars_top_3gram, gopher_frac_chars_top_4gram,
    gopher_frac_chars_dupe_5grams, gopher_frac_chars_dupe_6grams, gopher_frac_chars_dupe_7grams,
    gopher_frac_chars_dupe_8grams, gopher_frac_chars_dupe_9grams, gopher_frac_chars_dupe_10grams
)

-- name: gopher_pass
-- Whether a document passes both sets of Gopher's rules.
gopher_quality_passes(
    gopher_word_count, gopher_mean_word_length, gopher_hash_to_word_ratio, gopher_ellipsis_to_word_ratio,
    gopher_frac_bullet_lines, gopher_frac_ellipsis_lines, gopher_frac_alpha_words, gopher_num_stop_words
)
AND gopher_repetition_passes(
    gopher_frac_dup_lines, gopher_frac_dup_paragraphs, gopher_frac_chars_dup_lines,
    gopher_frac_chars_dup_paragraphs,
    gopher_frac_chars_top_2gram, gopher_frac_chars_top_3gram, gopher_frac_chars_top_4gram,
    gopher_frac_chars_dupe_5grams, gopher_frac_chars_dupe_6grams, gopher_frac_chars_dupe_7grams,
    gopher_frac_chars_dupe_8grams, gopher_frac_chars_dupe_9grams, gopher_frac_chars_dupe_10grams
)

-- name: c4_pass
-- Whether C4 keeps the page, with lines of at least 3 words and 5 sentences (first preprint; datatrove).
c4_passes(c4_num_sentences_3_words, c4_num_lorem_ipsum_lines_3_words, c4_num_curly_bracket_lines_3_words)

-- name: c4_jmlr_pass
-- Whether C4 keeps the page, with lines of at least 5 words and 3 sentences (JMLR 21-140; TensorFlow Datasets).
c4_passes(
    c4_num_sentences_5_words, c4_num_lorem_ipsum_lines_5_words, c4_num_curly_bracket_lines_5_words,
    min_sentences := 3
)

-- name: fineweb_pass
-- Whether a document passes FineWeb's own rules (arXiv 2406.17557, section 3.5).
fineweb_passes(
    fineweb_line_punct_ratio, fineweb_short_line_ratio_30_chars, fineweb_char_dup_ratio,
    fineweb_newline_to_word_ratio
)

-- name: dclm_pass
-- Whether DCLM-Baseline keeps the document (arXiv 2406.11794, section 4.4; the best tenth of its pool).
dclm_quality >= 0.018112
