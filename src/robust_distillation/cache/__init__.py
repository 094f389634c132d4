"""The exact cache: a teacher's logits and features for every view of every training image."""
