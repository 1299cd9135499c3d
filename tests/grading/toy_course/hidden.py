from labs_helpers.exercises import Case, equals

CASES = {
    "double": (Case("a large number", equals(2.0**61), (2**60,)), Case("a negative fraction", equals(-0.5), (-0.25,))),
    "total": (Case("SECRET-CASE-NAME negatives", equals(-3), ([-1, -2],)), Case("one number", equals(7), ([7],))),
}
