"""From saved statistics to shares, causes and reports. No JAX in here.

Everything reads the files of a finished run, so it works on a laptop over statistics that
were copied from a pod.
"""
