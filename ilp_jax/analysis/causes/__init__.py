"""One file a cause: how far a row's signals speak for it.

Each has ``judge(signals, thresholds)``: from the frame of ``signals.parquet`` and the config's
group ``diagnose`` to one row an example and point with

* ``score`` in [0, 1], monotone in the evidence, 0.5 where the flag begins (`scale.ramp`), so
  that scores of different causes can be compared;
* ``flag``, whether the score reaches 0.5;
* ``evidence``, a text with the numbers in it;
* ``related_ids``, examples that the evidence names.

A signal that is null gives a null score and flag, unless the others decide without it; the
evidence then says what is missing. No judge asks whether a row is unlearned: that is the
detector's word.
"""
