"""Recommendations from a CSV file of ratings: ``python examples/ratings.py ratings.csv``.

The file has a header and columns of users, items and ratings, MovieLens for example:
``--user userId --item movieId``. A tenth of the ratings is held out to measure the error.
"""

from __future__ import annotations

import argparse

from daskps import MatrixFactorization, read_ratings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--user", default="user")
    parser.add_argument("--item", default="item")
    parser.add_argument("--rating", default="rating")
    args = parser.parse_args()
    columns = {"user": args.user, "item": args.item, "rating": args.rating}
    ratings = read_ratings(args.path, duplicates="last", **columns)
    train, test = ratings.split(0.9)
    print(train, test, sep="\n")

    model = MatrixFactorization(n_factors=32, reg=0.1, max_iter=20).fit(train)
    print(f"error of held-out ratings (RMSE): {model.rmse(test, unknown='popular'):.4f}")
    print(model.ranking(test, k=10, relevant=4.0).to_pandas())

    user, item = ratings.users.tolist()[0], ratings.items.tolist()[0]
    print(f"for user {user!r}:", model.recommend(user, k=5), sep="\n")
    print(f"like item {item!r}:", model.similar_items(item, k=5), sep="\n")


if __name__ == "__main__":
    main()
