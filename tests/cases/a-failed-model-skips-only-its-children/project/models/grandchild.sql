select n from child
