"""Pages to draw on: networks of random weights for them, and what their scripts compute."""

from __future__ import annotations

import base64

import numpy as np


def as_text(pixels):
    return base64.b64encode(np.ascontiguousarray(pixels, np.uint8).tobytes()).decode()


def scripted_logits(page, images):
    """Logits float64 [N, classes] of images uint8 [N, H, W, 1], as the page computes them."""
    return np.array(
        page.evaluate(
            """texts => texts.map(text => {
                const pixels = Float32Array.from(bytesOf(text), value => value / 255);
                return Array.from(runNetwork(layers, pixels).at(-1));
            })""",
            [as_text(image) for image in images],
        )
    )


def scripted_saliency(page, image, label):
    """The gradient, float64 [H, W], of the logit of a class, as the page computes it."""
    found = page.evaluate(
        """([text, label]) => {
            const pixels = Float32Array.from(bytesOf(text), value => value / 255);
            return Array.from(findSaliency(layers, runNetwork(layers, pixels), label));
        }""",
        [as_text(image), int(label)],
    )
    return np.array(found).reshape(image.shape[:2])


def scripted_preparation(page, gray):
    """What the page makes of a picture uint8 [H, W]: uint8 [28, 28, 1] and warnings; or None."""
    found = page.evaluate(
        """([text, height, width]) => {
            const data = Float32Array.from(bytesOf(text), value => value / 255);
            const prepared = prepareDigit({ height, width, data });
            return prepared && [Array.from(prepared.image), prepared.warnings];
        }""",
        [as_text(gray), *gray.shape],
    )
    return found and (np.array(found[0], np.uint8).reshape(28, 28, 1), tuple(found[1]))


def sheet_of(page):
    """The pixels of the sheet, uint8 [400, 400]; they are gray."""
    text = page.evaluate(
        """() => {
            const { data } = pad.context.getImageData(0, 0, 400, 400);
            let text = "";
            for (let at = 0; at < data.length; at += 4) text += String.fromCharCode(data[at]);
            return btoa(text);
        }"""
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(400, 400)
