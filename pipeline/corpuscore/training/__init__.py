"""Training: a student from a teacher, a fine-tuned BERT from gold labels, and what either is worth.

stages.py       the steps of a distillation, with JSON-ready arguments
sampling.py     texts to learn from          teacher.py      what the teacher says of them
vocabulary.py   the student's words          student.py      the student and its loss
finetune.py     BERT checkpoints             labelled.py     texts with gold labels
loop.py         the loop of both             batches.py      which documents a step sees
checkpoints.py  its state on disk            folder.py       a run's folder
samples.py      the texts of a run           limits.py       what numbers an option takes
metrics.py      F1, thresholds, calibration  evaluation.py   a model's figures on a labelled file
"""
