"""What a study costs, before anything is spent.

    config, data -> subject: shape of the model, tokenised rows; no weights are read
      -> training, asking: which batches of which shapes each phase runs (work)
      -> flops: FLOPs and bytes of a row -> cost: seconds of a line on a slice of chips
      -> disk: bytes of the files -> plan: all of it -> table: as rich draws it

All but ``subject`` and ``measure`` are pure functions of numbers.
"""
