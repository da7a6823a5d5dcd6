-- The nouns of a workspace, over raw_* relations that the catalog makes from the manifests' file lists.

-- name: documents
-- One row per document.
SELECT doc_id, id, source, url, host, created, year, num_chars, num_bytes, blank, repaired, content_hash, shard
FROM raw_documents

-- name: rejects
-- One row per record that could not be read.
SELECT path, location, reason, head
FROM raw_rejects

-- name: ledger
-- One row per stage and shard.
SELECT stage, shard, num_in, num_out, num_dropped, num_rejected, num_bytes, seconds, reasons
FROM raw_ledger

-- name: decisions
-- One row per selection and document; `windows` are the numbers of those kept, null where whole documents are chosen.
SELECT selection, doc_id, kept, step, reason, survivor, windows
FROM raw_decisions

-- name: takedowns
-- One row per published document that a block list names: what must go.
SELECT selection, doc_id, id, url, source, file, reason
FROM raw_takedowns

-- name: duplicates
-- One row per document of a duplicate cluster, its representative included: near duplicates where they are marked, and
-- documents of equal text beside them, whose representative is the member with the smallest doc_id.
SELECT doc_id, cluster_id, representative, matched_doc, estimated_jaccard, jaccard
FROM raw_near_duplicates
UNION ALL
SELECT
    doc_id,
    exact_duplicate_hash AS cluster_id,
    min(doc_id) OVER cluster AS representative,
    min(doc_id) OVER cluster AS matched_doc,
    1.0 AS estimated_jaccard,
    1.0 AS jaccard
FROM raw_exact_duplicate ANTI JOIN raw_near_duplicates USING (doc_id)
WHERE exact_duplicate_hash IN (
    SELECT exact_duplicate_hash
    FROM raw_exact_duplicate ANTI JOIN raw_near_duplicates USING (doc_id)
    GROUP BY exact_duplicate_hash
    HAVING count(*) > 1
)
WINDOW cluster AS (PARTITION BY exact_duplicate_hash)

-- name: duplicate_report
-- One row per workspace whose near duplicates are marked: what was found, and what was not compared all with all.
SELECT num_members, num_clusters, largest_cluster, num_parted, num_oversized_buckets, largest_bucket
FROM raw_duplicate_report

-- name: duplicate_buckets
-- One row per bucket of documents with an equal band that was too large to compare all with all.
SELECT first_band, size
FROM raw_duplicate_buckets

-- name: datasets
-- One row per exported dataset.
SELECT selection, num_documents, num_bytes, num_files, path
FROM raw_datasets

-- name: runs
-- One row per run of a recipe.
SELECT run, started, seconds, command, status, message, version
FROM raw_runs

-- name: models
-- One row per model file a scorer read.
SELECT scorer, fingerprint, option, digest
FROM raw_models

-- name: training
-- One row per step in which a language model was trained: tokens seen so far, mean loss in nats a token.
SELECT model, step, num_tokens, loss, learning_rate, seconds
FROM raw_training

-- name: rungs
-- One row per model of the ladder, the worst first: its benchmark average, bits a byte of the right answers of the tasks,
-- and bits per character of the documents whose strength was measured.
SELECT position, rung, average, task_loss, bits_per_character
FROM raw_rungs

-- name: strengths
-- One row per seed document: the share of the pairs of rungs of which the better one compresses it better. `label` says
-- what the classifier of `predictive_strength` took it for, null where it took it not; it is judged by those `held_out`.
SELECT doc_id, source, host, num_chars, strength, label, held_out
FROM raw_strengths

-- name: rung_losses
-- One row per seed document and rung of the ladder: bits per character.
SELECT doc_id, position, rung, raw_strengths.bits_per_character[position] AS bits_per_character
FROM raw_strengths, raw_rungs

-- name: meta_rater_weights
-- One row per signal that `meta_rater` weighs: its weight, and whether its higher end is the better one.
SELECT position, signal, weight, higher_is_better
FROM raw_meta_rater_weights

-- name: proxies
-- One row per proxy by which the weights of `meta_rater` were found and domain of held-out texts: bits per byte.
SELECT proxy, round, loss AS objective, unnest(domains) AS domain, unnest(losses) AS loss, weights
FROM raw_proxies

-- name: ablations
-- One row per training of an ablation: what it was trained on, how long, and its loss on held-out documents.
SELECT selection, seed, multiple, num_tokens, epochs, training_loss, bits_per_byte, seconds
FROM raw_ablations

-- name: ablation_tasks
-- One row per training of an ablation and task: the share of the questions it answers rightly.
SELECT selection, seed, multiple, num_tokens, task, num_questions, accuracy, standard_error, chance
FROM raw_ablation_tasks

-- name: mixtures
-- One row per share of domain text and observed length: both losses, in nats a token; length 0 is the model's start.
SELECT domain, ratio, num_tokens, domain_loss, general_loss, general_error
FROM raw_mixtures

-- name: score_columns
-- One row per score column: what it means and which scorer version and settings made it.
SELECT
    column_name, scorer, version, fingerprint, options, unit, minimum, maximum, higher_is_better, description,
    follows, deviation, libraries
FROM raw_score_columns
