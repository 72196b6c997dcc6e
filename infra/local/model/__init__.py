"""The local model server: OpenAI's protocol over real HTTP, on a machine that has nothing (docs/local-model.md).

server          starts and stops the server as a process of its own
faults_client   switches faults and reads counts, for tests
__main__        the command line
key             where the API key comes from
process         socket, signals, ready file
app             puts the parts together, gives paths to them
admin           what lies outside /v1: faults, latency, calls

door            every request: key, fault, count, endpoint, reply
sender          replies on their way out, whole or damaged
connection      connections that can be cut
reply           what an endpoint gets and gives
fields          typed access to JSON bodies
errors          error bodies of OpenAI's shape
multipart       uploads
faults          which faults are switched on
refusals        faults as error replies
latency         how slow replies are
calls           how often somebody paid

weights         the two files of the wordllama wheel
tokens          text to token ids
vectors         token ids to unit vectors
embeddings      /v1/embeddings

chat            /v1/chat/completions
chat_request    what a chat request asks for
prompt          messages to question, passages, examples
sentences       a passage to quotable sentences
terms           a question to weighted terms
reading         a passage read once for all questions
answer          sentences that answer a question
judging         two answers to the better one
structured      answers as JSON
stream          answers as server-sent events

catalog         /v1/models: base models, tuned models, checkpoints
files           /v1/files
jobs            /v1/fine_tuning/jobs
job_request     what a new job asks for
runner          jobs from validation to the tuned model
records         jobs and events in the store
hooks           the end of a job as a signed webhook
job_work        a job's files to a training, its measurements to a file
training_file   JSONL to examples, as OpenAI checks it
training        examples to a trained head, step by step
head            the trained part and its gradients
tuned           a tuned model answering
store           SQLite and plain files
"""
