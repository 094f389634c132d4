from robust_distillation.cli import main

main()
