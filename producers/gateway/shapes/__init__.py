"""What the API's requests and answers look like: requests are read with these models, answers are described by them.

base       what answers have in common; the problem document
events     publications and events
documents  documents
questions  searches, questions, answers, feedback
training   examples and datasets
webhooks   endpoints and deliveries
erasures   what is to be forgotten
"""
