"""From files to arrays: records, tokens, padded batches, and what is kept between epochs.

    sources/           one file a data set -> records
    records            the one schema, as users write it
    fields             ... and what its fields must be
    prepared           many records in a folder of TensorFlow Datasets
    codec              texts to tokens and back
    writable           whether a tokenizer's tokens say a text
    spacing            what stands between a prompt and its target
    tokenizers         training one, for a base that is trained from nothing
    token_records      records as tokens, and what had to be left out
    batches            tokens to padded arrays
    training_batches   which records and pairs a training step takes
    bucketing          few shapes and little padding
    trunk_cache        the frozen layers below the edited ones, run once
    trunk_pass         ... out of the weights' files, one at a time
    trunk_stream       ... and what they put out, kept
    states_index       ... and found again
    states_kept        ... and let go
    decoding           what a base answers to many prompts
"""
