-- What stood for masked values in requests, and was replaced by them on its way to AWS.

ALTER TABLE calls
  ADD COLUMN IF NOT EXISTS unmasked_policies Array(LowCardinality(String)) DEFAULT []
    COMMENT 'the policies whose @unmask_into put masked values back into the request',
  ADD COLUMN IF NOT EXISTS unmasked_paths Array(String) DEFAULT []
    COMMENT 'in which member, one for each of unmasked_policies' CODEC(ZSTD(3));
