"""Stores a teacher's logits and features for every view of every training image.

A view is what an augmentation makes of one training image. Views are numbered, so the cached value of a view is exactly
what the teacher would compute for it.
"""
