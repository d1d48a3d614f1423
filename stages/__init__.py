"""What is computed: the stages, the trainings, the evaluation and the command line."""
