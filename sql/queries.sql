-- name: funnel
-- One row per selection and step: documents and characters that arrived and that were kept.
SELECT selection, step, num_in, num_kept, round(num_kept / num_in, 4) AS keep_rate, num_chars_in, num_chars_kept
FROM funnel
ORDER BY selection, position

-- name: drop_reasons
-- One row per selection, step and reason: documents dropped.
SELECT selection, step, reason, count(*) AS num_documents
FROM decisions
WHERE NOT kept
GROUP BY ALL
ORDER BY selection, num_documents DESC, reason

-- name: keep_rate_by_source
-- One row per selection, source and year: share of documents and of characters kept.
SELECT
    selection,
    source,
    year,
    count(*) AS num_documents,
    round(avg(kept::INTEGER), 4) AS keep_rate,
    round(sum(num_chars) FILTER (WHERE kept) / sum(num_chars), 4) AS keep_rate_of_chars
FROM decisions JOIN documents USING (doc_id)
GROUP BY selection, source, year
ORDER BY selection, source, year

-- name: threshold_sweep
-- One row per threshold, source and year: what a threshold on one score would keep, before anything is written.
-- The 19 thresholds are the score's 5 % quantiles; `below` is the inverse filter.
-- parameter: score column
WITH thresholds AS (
    SELECT unnest(quantile_cont(scores.{score}::DOUBLE, [i / 20 FOR i IN range(1, 20)])) AS threshold
    FROM scores
)
SELECT
    threshold,
    source,
    year,
    count(*) AS num_documents,
    round(avg((scores.{score} >= threshold)::INTEGER), 4) AS keep_rate_at_least,
    round(avg((scores.{score} < threshold)::INTEGER), 4) AS keep_rate_below,
    round(sum(num_chars) FILTER (WHERE scores.{score} >= threshold) / sum(num_chars), 4) AS keep_rate_of_chars_at_least
FROM (SELECT DISTINCT threshold FROM thresholds), scores JOIN documents USING (doc_id)
GROUP BY threshold, source, year
ORDER BY threshold, source, year

-- name: score_summary
-- One row per source: range, mean and quartiles of one score.
-- parameter: score column
SELECT
    source,
    count(*) AS num_documents,
    min(scores.{score}) AS minimum,
    round(quantile_cont(scores.{score}::DOUBLE, 0.25), 4) AS lower_quartile,
    round(median(scores.{score}::DOUBLE), 4) AS median,
    round(quantile_cont(scores.{score}::DOUBLE, 0.75), 4) AS upper_quartile,
    max(scores.{score}) AS maximum,
    round(avg(scores.{score}::DOUBLE), 4) AS mean
FROM scores JOIN documents USING (doc_id)
GROUP BY source
ORDER BY source

-- name: score_agreement
-- One row per source: Pearson's and Spearman's correlation of two scores.
-- parameter: first column
-- parameter: second column
WITH ranked AS (
    SELECT
        source,
        scores.{first}::DOUBLE AS a,
        scores.{second}::DOUBLE AS b,
        rank() OVER (PARTITION BY source ORDER BY scores.{first}) AS rank_a,
        rank() OVER (PARTITION BY source ORDER BY scores.{second}) AS rank_b
    FROM scores JOIN documents USING (doc_id)
)
SELECT source, count(*) AS num_documents, round(corr(a, b), 4) AS pearson, round(corr(rank_a, rank_b), 4) AS spearman
FROM ranked
GROUP BY source
ORDER BY source

-- name: joint_report
-- One row per source, year and quarters of two scores, such as quality and toxicity: documents and characters, the share
-- of the source and year, and the share of the first score's quarter. Quarters, 1 the lowest, are by rank in the corpus,
-- where equal values share the mean of theirs; a value that is no finite number has none.
-- parameter: first column
-- parameter: second column
WITH valued AS (
    SELECT
        source,
        year,
        num_chars,
        CASE WHEN isfinite(scores.{first}::DOUBLE) THEN scores.{first}::DOUBLE END AS a,
        CASE WHEN isfinite(scores.{second}::DOUBLE) THEN scores.{second}::DOUBLE END AS b
    FROM scores JOIN documents USING (doc_id)
),
ranked AS (
    SELECT
        *,
        (percent_rank() OVER by_a + cume_dist() OVER by_a) / 2 AS rank_a,
        (percent_rank() OVER by_b + cume_dist() OVER by_b) / 2 AS rank_b
    FROM valued
    WINDOW by_a AS (PARTITION BY a IS NULL ORDER BY a), by_b AS (PARTITION BY b IS NULL ORDER BY b)
),
quartered AS (
    SELECT
        source,
        year,
        num_chars,
        CASE WHEN a IS NOT NULL THEN least(1 + floor(4 * rank_a), 4)::INTEGER END AS first_quarter,
        CASE WHEN b IS NOT NULL THEN least(1 + floor(4 * rank_b), 4)::INTEGER END AS second_quarter
    FROM ranked
)
SELECT
    source,
    year,
    first_quarter,
    second_quarter,
    count(*) AS num_documents,
    sum(num_chars) AS num_chars,
    round(count(*) / sum(count(*)) OVER (PARTITION BY source, year), 4) AS share,
    round(count(*) / sum(count(*)) OVER (PARTITION BY source, year, first_quarter), 4) AS share_of_first_quarter
FROM quartered
GROUP BY source, year, first_quarter, second_quarter
ORDER BY source, year, first_quarter, second_quarter

-- name: strength_by_source
-- One row per source: predictive strength of its seed documents, and the shares at both ends.
SELECT
    source,
    count(*) AS num_documents,
    round(avg(strength), 4) AS strength,
    round(avg((strength = 1)::INTEGER), 4) AS share_at_1,
    round(avg((strength = 0)::INTEGER), 4) AS share_at_0,
    count(*) FILTER (WHERE strength IS NULL) AS num_without_strength
FROM strengths
GROUP BY source
ORDER BY strength DESC, source

-- name: strength_by_host
-- One row per host, the strongest first: predictive strength of its seed documents.
SELECT
    host,
    count(*) AS num_documents,
    round(avg(strength), 4) AS strength,
    round(avg((strength = 1)::INTEGER), 4) AS share_at_1,
    round(avg((strength = 0)::INTEGER), 4) AS share_at_0
FROM strengths
GROUP BY host
ORDER BY strength DESC, host

-- name: dropped_from_host
-- One row per selection and document of a host that it dropped, and why.
-- parameter: host text
SELECT selection, doc_id, url, step, reason, num_chars
FROM decisions JOIN documents USING (doc_id)
WHERE NOT kept AND host = {host}
ORDER BY selection, step, url, doc_id

-- name: largest_clusters
-- One row per duplicate cluster, the 50 largest first.
SELECT
    cluster_id,
    count(*) AS num_documents,
    list(DISTINCT source ORDER BY source) AS sources,
    any_value(representative) AS representative
FROM duplicates JOIN documents USING (doc_id)
GROUP BY cluster_id
ORDER BY num_documents DESC, cluster_id
LIMIT 50

-- name: cluster_sizes
-- One row per size of duplicate clusters: how many there are, and the documents in them.
WITH clusters AS (SELECT cluster_id, count(*) AS size FROM duplicates GROUP BY cluster_id)
SELECT size, count(*) AS num_clusters, sum(size) AS num_documents
FROM clusters
GROUP BY size
ORDER BY size

-- name: source_overlap
-- One row per pair of sources: duplicates of the first whose representative is of the second.
SELECT member.source AS source, kept.source AS representative_source, count(*) AS num_documents
FROM duplicates
JOIN documents AS member USING (doc_id)
JOIN documents AS kept ON kept.doc_id = representative
WHERE representative <> duplicates.doc_id
GROUP BY ALL
ORDER BY source, representative_source

-- name: closest_calls
-- One row per duplicate, the 20 least similar to their representatives first, with the beginnings of both texts.
SELECT
    nearest.doc_id,
    jaccard,
    estimated_jaccard,
    member.id,
    kept.id AS representative_id,
    left(own.text, 200) AS text,
    left(other.text, 200) AS representative_text
FROM (
    SELECT * FROM duplicates
    WHERE representative <> doc_id
    ORDER BY coalesce(jaccard, estimated_jaccard), doc_id
    LIMIT 20
) AS nearest
JOIN documents AS member USING (doc_id)
JOIN documents AS kept ON kept.doc_id = representative
JOIN texts AS own ON own.doc_id = nearest.doc_id
JOIN texts AS other ON other.doc_id = representative
ORDER BY coalesce(jaccard, estimated_jaccard), member.doc_id

-- name: near_pairs
-- One row per pair of documents whose signatures share a band and agree in a share of their values at or above a
-- threshold. Another layout or threshold needs no other signatures. Of equal signatures, the first document stands
-- for all: the others are paired with it alone. A band that many signatures share is compared all with all.
-- parameter: num_bands text
-- parameter: rows_per_band text
-- parameter: threshold text
WITH signed AS (
    SELECT doc_id, minhash_signature, min(doc_id) OVER (PARTITION BY minhash_signature) AS first_doc
    FROM raw_minhash
    WHERE num_shingles > 0
),
leaders AS (
    SELECT doc_id, minhash_signature AS signature FROM signed WHERE doc_id = first_doc
),
bands AS (
    SELECT
        doc_id,
        unnest(range({num_bands}::INTEGER)) AS number,
        unnest(signature_bands(signature, {num_bands}::INTEGER, {rows_per_band}::INTEGER)) AS band
    FROM leaders
),
candidates AS (
    SELECT DISTINCT a.doc_id, b.doc_id AS other_doc
    FROM bands AS a JOIN bands AS b ON b.number = a.number AND b.band = a.band AND b.doc_id > a.doc_id
),
pairs AS (
    SELECT
        candidates.doc_id,
        other_doc,
        estimate_jaccard(a.signature, b.signature) AS estimated_jaccard
    FROM candidates
    JOIN leaders AS a ON a.doc_id = candidates.doc_id
    JOIN leaders AS b ON b.doc_id = other_doc
    UNION ALL
    SELECT first_doc, doc_id, 1.0 FROM signed WHERE doc_id <> first_doc
)
SELECT pairs.doc_id, other_doc, a.id, b.id AS other_id, estimated_jaccard
FROM pairs
JOIN documents AS a ON a.doc_id = pairs.doc_id
JOIN documents AS b ON b.doc_id = other_doc
WHERE estimated_jaccard >= {threshold}::DOUBLE
ORDER BY estimated_jaccard DESC, pairs.doc_id, other_doc

-- name: layout_recall
-- One row per Jaccard similarity: the chance that a layout of bands finds a pair of it.
-- parameter: num_bands text
-- parameter: rows_per_band text
SELECT
    jaccard,
    round(collision_probability(jaccard, {num_bands}::INTEGER, {rows_per_band}::INTEGER), 4) AS probability
FROM (SELECT unnest(range(50, 101, 5)) / 100 AS jaccard)
ORDER BY jaccard

-- name: simhash_pairs
-- One row per pair of documents of one source and host whose 64-bit hashes, such as `simhash`, differ in at most 3 bits.
-- parameter: hash column
SELECT
    a.source,
    a.host,
    a.doc_id,
    b.doc_id AS other_doc,
    a.id,
    b.id AS other_id,
    bit_count(xor(s.{hash}::UBIGINT, t.{hash}::UBIGINT)) AS num_bits
FROM documents AS a
JOIN scores AS s ON s.doc_id = a.doc_id
JOIN documents AS b ON b.source = a.source AND b.host IS NOT DISTINCT FROM a.host AND b.doc_id > a.doc_id
JOIN scores AS t ON t.doc_id = b.doc_id
WHERE bit_count(xor(s.{hash}::UBIGINT, t.{hash}::UBIGINT)) <= 3 AND NOT a.blank AND NOT b.blank
ORDER BY a.source, a.host, num_bits, a.doc_id, b.doc_id

-- name: contributions
-- One row per signal: why `meta_rater` rates one document as it does.
-- parameter: doc_id text
SELECT signal, weight, round(contribution / nullif(weight, 0), 3) AS scaled_signal, round(contribution, 4) AS contribution
FROM (
    SELECT unnest(meta_rater_contributions) AS contribution, generate_subscripts(meta_rater_contributions, 1) AS position
    FROM raw_contributions
    WHERE doc_id = {doc_id}::UUID
)
JOIN meta_rater_weights USING (position)
ORDER BY contribution DESC, signal

-- name: representatives
-- One row per document that stands for others in the subset of `facility_location`, the 50 of the most documents first.
SELECT
    d.doc_id,
    d.source,
    d.id,
    count(*) AS num_documents,
    round(avg(facility_location_similarity), 4) AS mean_similarity,
    list(DISTINCT member.source ORDER BY member.source) AS sources
FROM raw_representatives AS r
JOIN documents AS d ON d.doc_id = r.facility_location_representative
JOIN documents AS member ON member.doc_id = r.doc_id
GROUP BY d.doc_id, d.source, d.id
ORDER BY num_documents DESC, d.doc_id
LIMIT 50

-- name: duplicate_ids
-- One row per source and user's id that several documents share.
SELECT source, id, count(*) AS num_documents
FROM documents
WHERE id IS NOT NULL
GROUP BY source, id
HAVING count(*) > 1
ORDER BY num_documents DESC, source, id

-- name: reject_reasons
-- One row per reason: records that could not be read, with one example.
SELECT
    split_part(reason, ':', 1) AS reason,
    count(*) AS num_records,
    arg_min(path || ' at ' || location || ': ' || rejects.reason, path || location) AS example
FROM rejects
GROUP BY ALL
ORDER BY num_records DESC, reason

-- name: costs
-- One row per stage: documents, text and time, summed over shards.
SELECT
    stage,
    count(*) AS num_shards,
    sum(num_in) AS num_in,
    sum(num_out) AS num_out,
    sum(num_dropped) AS num_dropped,
    sum(num_rejected) AS num_rejected,
    round(sum(num_bytes) / 1e6, 1) AS megabytes,
    round(sum(seconds), 1) AS seconds,
    round(sum(num_bytes) / 1e6 / nullif(sum(seconds), 0), 1) AS megabytes_per_second
FROM ledger
GROUP BY stage
ORDER BY stage
