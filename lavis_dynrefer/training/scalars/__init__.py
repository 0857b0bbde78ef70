"""Numbers of a training: the file that every run keeps, TensorBoard, wandb."""
